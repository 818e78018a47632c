"""A module that fails when it is imported."""

raise ZeroDivisionError("the magic did not work")
