"""Make model bundles, and run them.

The making half (`convert`, `graph`, `quantize`, `parity`, `source`) needs the `export` extra: torch and optimum. The
running half (`bundle`, `runtime`) is all that serving imports.
"""
