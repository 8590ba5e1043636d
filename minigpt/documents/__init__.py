"""Text of documents: PDF, Word, mail, tables, archives and others become rows of text, each kind by one module."""
