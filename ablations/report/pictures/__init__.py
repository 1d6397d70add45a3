"""The report's pictures: each module draws one kind."""
