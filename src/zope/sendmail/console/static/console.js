// Makes the console pleasant; everything works without it.
"use strict";

for (const box of document.querySelectorAll("input[data-all]")) {
  box.hidden = false;
  box.addEventListener("change", () => {
    for (const other of document.querySelectorAll(`input[name="${box.dataset.all}"]`)) other.checked = box.checked;
  });
}

function refresh(part) {
  const seconds = Number(part.dataset.refresh);
  setTimeout(async () => {
    const busy = document.hidden || part.contains(document.activeElement) || part.querySelector("details[open]");
    if (!busy) {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = answer.ok && page.querySelector("[data-refresh]");
        if (fresh) {
          part.replaceWith(fresh);
          part = fresh;
        }
      } catch (error) {
        // the server is away for a moment: the page stays as it is
      }
    }
    refresh(part);
  }, seconds * 1000);
}

for (const part of document.querySelectorAll("[data-refresh]")) refresh(part);
