"""A worker beside the first one, which is the one that is watched."""


class NullLogger:
    """In the place of `Watch`: shows nothing and writes nothing."""

    def __enter__(self) -> "NullLogger":
        return self

    def __exit__(self, *error: object) -> None: ...

    def log_step(self, step: int, tokens: int, read: int, numbers: dict[str, float]) -> None: ...

    def log_validation(self, step: int, tokens: int, numbers: dict[str, float]) -> None: ...
