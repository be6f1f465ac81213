// Makes the console pleasant; everything works without it.
"use strict";

// The box in the head of a table ticks all below it.
function prepare(part) {
  for (const box of part.querySelectorAll("input[data-all]")) {
    box.hidden = false;
    box.addEventListener("change", () => {
      for (const other of document.querySelectorAll(`input[name="${box.dataset.all}"]`)) other.checked = box.checked;
    });
  }
}

// A part that says so is fetched again; it is left alone while the reader is in it.
function refresh(part) {
  setTimeout(async () => {
    const busy = document.hidden || part.contains(document.activeElement) || part.querySelector("details[open], :checked");
    if (!busy) {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = answer.ok && page.getElementById(part.id);
        if (fresh) {
          part.replaceWith(fresh);
          part = fresh;
          prepare(part);
        }
      } catch (error) {
        // the server is away for a moment: the page stays as it is
      }
    }
    if (part.dataset.refresh) refresh(part);
  }, Number(part.dataset.refresh) * 1000);
}

// A form that only waits for an answer is sent again by itself.
for (const form of document.querySelectorAll("form[data-again]")) {
  setTimeout(() => form.requestSubmit(), Number(form.dataset.again) * 1000);
}

prepare(document);
for (const part of document.querySelectorAll("[data-refresh]")) refresh(part);
