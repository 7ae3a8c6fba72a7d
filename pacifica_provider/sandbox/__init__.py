"""A local, stateful stand-in for the Pacifica exchange: `python -m pacifica_provider.sandbox`.

In a test suite: `with Sandbox() as sandbox: ...`. See docs/sandbox.md.
"""

from pacifica_provider.sandbox.library import Sandbox

__all__ = ["Sandbox"]
