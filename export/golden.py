"""Golden texts: what every export is compared on with its torch reference.

Original sentences as visitors and FAQs have them: one word to a paragraph, numbers, misspellings, other scripts.
"""

LONG = (
    "Returns are free within 30 days of delivery as long as the item is unused, in its original packaging and comes "
    "with the return note that we put into every parcel. Print the label from your account, hand the parcel in at any "
    "pick-up point, and keep the receipt until the refund has arrived, which takes three to five working days after "
    "we have checked the item. Items that were made to measure, opened hygiene products and gift cards cannot be "
    "returned, except when they arrived damaged; in that case send us a photo and we take care of the rest."
)

SENTENCES: tuple[str, ...] = (
    "hello",
    "?",
    "refund",
    "hours sunday",
    "where is my order",
    "Where is my order #48213-B?",
    "wheres my pacage it shoud of come tuesday",
    "I ordered two lamps last week and only one of them came, is the other one still on its way?",
    "How do I reset my password when I no longer have access to the email address that I signed up with?",
    "can i pay in instalments",
    "Do you ship to the Åland Islands, and if so, what does it cost?",
    "¿Puedo devolver un regalo sin el recibo?",
    "Kann ich meine Bestellung noch ändern?",
    "注文をキャンセルしたいです",
    "THIS IS THE THIRD TIME I ASK. WHERE IS MY MONEY???",
    "thx bye",
    "what is the difference between the basic plan (9.99/month) and the pro plan (24.99/month)",
    "Is it true that the warranty does not cover water damage, not even when the phone is sold as waterproof?",
    "The card reader in your shop was broken, so I could not pay with my card. Will I be charged twice now?",
    "talk to a human",
    "My invoice from 12/03/2026 shows 19 % VAT although I am a business in another country.",
    "😀 nice shop 👍",
    "is it safe",
    "not what i ordered",
    "Can the booking be moved to the 14th at half past seven, for five people instead of three?",
    "asdfghjkl",
    "Which documents do I need to open an account for my daughter, who is eleven years old?",
    "My internet has been down since yesterday evening and the red light on the router keeps blinking.",
    "Bonjour, à quelle heure fermez-vous le samedi ?",
    "how long does it take",
    "If I cancel today, until when can I still use the service, and do I get back what I have already paid?",
    LONG,
)

PAIRS: tuple[tuple[str, str], ...] = tuple(
    (SENTENCES[i], SENTENCES[(i * 7 + 5) % len(SENTENCES)]) for i in range(len(SENTENCES))
)
