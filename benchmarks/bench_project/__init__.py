"""The Django project that every contender with a database runs."""
