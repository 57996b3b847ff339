"""The page of `python -m hybrid_jax.app`: re-enactment in a browser.

Only `layout` and `server` import Gradio; the other modules do the work without it. A visitor has a
`session.Session`: a temporary folder, the opened inputs, and the flag that stops the work. Only
`server` and `layout` match a call with its visitor.
"""
