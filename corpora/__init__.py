"""Readers that turn files of published packages into documents and questions (installed as `minigpt._corpora`).

A reader is a module with `documents(path) -> Iterator[Document]` and, where the data allows it,
`questions(path, *, seed) -> list[Question]` whose `Question.source` is the `Document.source` that holds the answer.
Readers only parse. They never import the package whose data they read.
"""
