"""A letter with text, HTML, a picture in it, and a file beside it."""

from email.message import EmailMessage
from email.utils import make_msgid


def make_letter(customer, number, logo, invoice):
    """Return the letter about an order; `logo` is PNG, `invoice` is PDF, as octets."""
    letter = EmailMessage()
    letter["From"] = "Bücher & mehr <shop@example.org>"
    letter["To"] = customer
    letter["Subject"] = f"Your order {number}"
    letter["Reply-To"] = "service@example.org"

    # 1. What programs show that show no HTML. It comes first; each further way to show the letter is better.
    letter.set_content(f"Thank you! Your order {number} is on its way.\n")

    # 2. HTML. The picture travels with it, by an identifier of its own: nothing is fetched from anywhere.
    picture = make_msgid(domain="example.org")
    html = f'<p><img src="cid:{picture[1:-1]}" alt="Bücher &amp; mehr"></p><p>Order <b>{number}</b> left.</p>'
    letter.add_alternative(html, subtype="html")
    letter.get_body(["html"]).add_related(logo, "image", "png", cid=picture)

    # 3. A file. Names may have any letters.
    letter.add_attachment(invoice, "application", "pdf", filename=f"Rechnung für {number}.pdf")
    return letter
