"""A task's champion answers over HTTP: FastAPI, uvicorn, prometheus_client, and only here."""
