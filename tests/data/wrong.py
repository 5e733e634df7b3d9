"""Values that no setting can have: no whole number from 1 on, no flag, no number, no three of them."""

NO_COUNTS = [0, -1, True, False, 1.5, "8", float("nan"), 2**63]
NO_FLAGS = [1, 0, "yes", None]
NO_NUMBERS = [float("nan"), float("inf"), "0.5", None, True, 1j]
NO_COLOURS = [0.5, "abc", (), (0.5,), (0.5, 0.5), (0.5,) * 4]
