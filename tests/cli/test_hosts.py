"""The lines to type on hosts that train blocks in parallel."""

import json

import tiny_commands


def test_hosts_are_told_what_to_type(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("A text.\n")
    typed = ["hosts", "own-text", "--hosts", "alpha,beta", "--machine", "two-hosts", "--source", "texts=texts"]
    shown = json.loads(tiny_commands.lilliput(*typed, "--json", folder=tmp_path).out)
    assert shown["data"] == {
        "alpha": [
            "lilliput data own-text --source texts=texts --out runs/own-text",
            f"rsync -aR runs/own-text beta:{tmp_path}/",
        ]
    }
    for rank, host in enumerate(("alpha", "beta")):
        line = shown["run"][host]
        assert f"--nnodes 2 --node-rank {rank} " in line and "--master-addr alpha --master-port 29500" in line
        assert line.endswith("lilliput run own-text --source texts=texts --out runs/own-text --machine two-hosts")
    said = tiny_commands.lilliput(*typed, folder=tmp_path).out
    assert shown["run"]["beta"] in said and "of beta, again after a stop" in said


def test_machines_that_take_outer_steps_are_started_likewise(tmp_path):
    machine = "from lilliput.train.machine import Machine\nfrom lilliput.train.outer_steps import OuterSteps\n"
    (tmp_path / "outer.py").write_text(f"{machine}machine = Machine(exchange=OuterSteps())\n")
    typed = ["hosts", "quickstart", "--hosts", "alpha,beta", "--machine", "outer.py", "--json"]
    shown = json.loads(tiny_commands.lilliput(*typed, folder=tmp_path).out)
    assert shown["run"]["beta"].endswith("lilliput run quickstart --out runs/quickstart --machine outer.py")
    assert "runs/quickstart outer.py beta:" in shown["data"]["alpha"][1], "the machine's file is copied, too"


def test_a_machine_for_other_hosts_is_refused(tmp_path):
    typed = ["hosts", "quickstart", "--hosts", "alpha,beta", "--machine"]
    tiny_commands.refused(*typed, "two-cpus", folder=tmp_path, says="does not train on 2 hosts without a shared disk")
    typed = ["hosts", "quickstart", "--hosts", "a,b,c", "--machine"]
    tiny_commands.refused(*typed, "two-hosts", folder=tmp_path, says="does not train on 3 hosts without a shared disk")
