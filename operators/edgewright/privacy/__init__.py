"""A person's right to be forgotten: what is stored of a pseudonym is found, removed, and reported."""
