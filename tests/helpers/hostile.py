"""What makes pickle run code."""


class Call:
    """Pickles as a call of any function, followed by a state where there is one.

    What unpickling returns is the result of the function.
    """

    def __init__(self, function, *args, state=None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.parts

    def __call__(self):  # pickle accepts only what can be called as a function
        raise NotImplementedError
