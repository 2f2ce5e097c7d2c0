"""Log lines of both programs: which fields they have, how they look, how they get out."""
