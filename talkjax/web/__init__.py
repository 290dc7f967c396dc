"""A page in the browser for sampling, and for live sessions with a microphone.

`service` is all that the page does, in plain Python; `page` shows it with Gradio, `live` speaks the
protocol of live sessions, and `server` puts both behind one address.
"""
