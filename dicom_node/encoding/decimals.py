"""Numbers as DICOM's Decimal String holds them (PS3.5 Table 6.2-1)."""

LONGEST = 16


def decimal_string(value: float) -> str:
    """The shortest text that gives a finite number again, else the nearest one of 16 characters; 5 without a dot.

    pydicom's own formatting gives 17 characters for what lies just below a power of ten, such as 9.999999999999998.
    """
    value = float(value)
    exact = repr(value).removesuffix(".0")
    if len(exact) <= LONGEST:
        return exact
    shorter = (f"{value:.{digits}g}" for digits in range(LONGEST, 0, -1))
    return next(text for text in shorter if len(text) <= LONGEST)
