"""Answers requests with finished models: an HTTP server in OpenAI's form, and a chat in the terminal."""
