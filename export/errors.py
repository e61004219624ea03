"""The root of faqwire's error tree.

    FaqwireError            every failure a user can cause or mend; its text is one sentence that says what, where
    |                       and what to do, and the command line prints nothing else
    +-- SealError           a folder that faqwire made is missing, damaged or from a newer faqwire
    |   +-- BundleError     ... a model bundle
    |   +-- AdapterError    ... a trained adapter
    |   +-- FaqIndexError   ... an index (in `intents.errors`)
    +-- ExportError         a model cannot be made into a bundle
    |   +-- SourceError     ... because the model is not there or not what it should be
    |   +-- ParityError     ... because the result does not agree with the reference
    +-- TrainingError       a cross-encoder cannot be trained so, or on this
    +-- ProviderError       the execution provider that was asked for is absent

The branches of FAQ files and indexes are in `intents.errors`, those of the wire and of settings in `server.errors`.
"""


class FaqwireError(Exception):
    """A failure that a user can cause or mend; its text is one clear sentence."""


class SealError(FaqwireError):
    """A folder made by faqwire is missing, incomplete, damaged, or written by a newer version."""


class BundleError(SealError):
    """A model bundle cannot be used."""


class AdapterError(SealError):
    """A trained adapter cannot be written."""


class ExportError(FaqwireError):
    """A model cannot be made into a bundle."""


class SourceError(ExportError):
    """The model to export is not there, or is not what it should be."""


class ParityError(ExportError):
    """An exported model does not agree with its reference."""


class TrainingError(FaqwireError):
    """A cross-encoder cannot be trained so, or on this."""


class ProviderError(FaqwireError):
    """The execution provider that was asked for is not available."""
