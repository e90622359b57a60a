"""The machine in a run's record, where somebody has damaged it."""

import pytest

from lilliput.base.errors import RunError
from lilliput.base.run_folder import RunFolder
from lilliput.run.reproducibility import resolve_machine


@pytest.mark.parametrize("machine", ["x" * 60, 3, ["cpu"], {"device": "cpu"}])
def test_a_machine_that_is_none_is_named(tmp_path, machine):
    with RunFolder(tmp_path) as run:
        record = run.read("run.json") or {}
        run.write_with_checksum("run.json", {**record, "machine": machine})
        with pytest.raises(RunError, match="the machine of the run is no machine") as error:
            resolve_machine(run, None)
    assert str(tmp_path / "run.json") == error.value.where and "copy" in error.value.hint
