"""A loaded model as evaluations take it.

`lilliput.evals` stands beside `lilliput.publish` and knows no folders of models.
"""

from pathlib import Path

from lilliput.evals.native_model import Native
from lilliput.publish.export import RELEASE_FILE
from lilliput.publish.loaded_model import LoadedModel


def native(loaded: LoadedModel, folder: Path) -> Native:
    """Return a loaded model for evaluation.

    Args:
        loaded: the model.
        folder: where it comes from.
    """
    # transformers takes the tokenizer files that Lilliput writes as they are, and finds no penalty beside them.
    is_ours = loaded.layout is None or (folder / RELEASE_FILE).is_file()
    return Native(
        name=str(folder),
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        special_tokens=loaded.special_tokens,
        context=loaded.context,
        tokenizer_folder=None if is_ours else folder,
        stop_ids=loaded.stop_ids,
        repetition_penalty=1.0 if is_ours else loaded.generation.repetition_penalty,
    )
