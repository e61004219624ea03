"""A durable record of what was asked, what was decided, and what visitors said about it.

The server opens one journal, tells it of every answer, and confirms a feedback once it is on the disk:

    journal = await Journal.open(settings, metrics.journal)
    ...
    journal.asked(Asked(ref=answer.ref, text=ask.text, ...))    # at once; never raises
    ...
    try:
        await journal.feedback(Feedback(ref=message.ref, helpful=True, ...))
    except NotStored:
        ...                                                     # an error to the client: try again later
    else:
        ...                                                     # `accepted`
    ...
    journal.degraded                                            # for /readyz: a sentence, or None
    ...
    await journal.close(seconds)                                # as the last thing of a drain

`settings.journal` is None where there is none. Every process of a server opens its own; they share the file.

`docs/journal.md` has the tables, what is kept of texts, for how long, how it is erased, and what happens when something
fails.
"""

from server.journal.journal import Journal

__all__ = ["Journal"]
