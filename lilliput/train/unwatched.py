"""A worker beside the first one, which is the one that is watched."""


class Unwatched:
    """In the place of `Watch`: shows nothing and writes nothing."""

    def __enter__(self) -> "Unwatched":
        return self

    def __exit__(self, *error: object) -> None: ...

    def see(self, step: int, tokens: int, read: int, numbers: dict[str, float]) -> None: ...

    def measured(self, step: int, tokens: int, numbers: dict[str, float]) -> None: ...
