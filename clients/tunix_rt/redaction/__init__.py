"""Personal data and secrets in traces: each value that is found becomes a placeholder such as ``<EMAIL_1>``.

Nothing here knows a server or a file, so that whoever takes traces in can use it before they are stored.
"""

from tunix_rt.redaction.patterns import KINDS, Finding
from tunix_rt.redaction.redactor import Redactor, UnknownKindError

__all__ = ["KINDS", "Finding", "Redactor", "UnknownKindError"]
