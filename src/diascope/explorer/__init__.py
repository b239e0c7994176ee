"""The explorer: look at an index in the browser, from one local command.

Flow: index folder -> Index (NumPy) -> server (Starlette, loopback only) -> page (built TypeScript, in the wheel).
"""
