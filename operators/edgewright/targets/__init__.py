"""Edge targets: a light description each; the compiler is imported only when it runs."""
