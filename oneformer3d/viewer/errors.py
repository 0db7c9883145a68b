"""What is said to a page that asks for what cannot be."""


class BadQuestionError(ValueError):
    """A page asked for what cannot be; the message may be shown to whoever asked."""
