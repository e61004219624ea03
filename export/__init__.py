"""Make model bundles, and run them.

The making half (`convert`, `graph`, `int8`, `parity`, `source`, `adapter`, `training`) needs the `export` extra: torch,
PEFT and optimum. The running half (`bundle`, `runtime`) is all that serving imports.
"""

import os

# From 1.29 on the published ONNX Runtime reports to Microsoft what it runs, and leaves an identifier in the user's
# cache folder, unless this is set before it is imported. An operator who wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
