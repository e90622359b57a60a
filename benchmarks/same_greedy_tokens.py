"""Do transformers, without Lilliput, and `lilliput generate` write the same greedy tokens?

    python benchmarks/same_greedy_tokens.py RUN [--questions 100] [--most 64] [--out FILE.json]

RUN is a run folder with an instruct release. Its held-out questions are answered by our own decoder, and by
`AutoModelForCausalLM.from_pretrained(...)` with the chat template in a process that cannot import lilliput; then one
question is answered by sampling with a repetition penalty through `generate`, which must only work.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from lilliput.base.environment import environment
from lilliput.base.files import write_json
from lilliput.generate.engine import Engine
from lilliput.generate.request import Request
from lilliput.publish.load import load
from lilliput.tokenizer.chatml import render

THEIRS = """
import json, sys
sys.modules["lilliput"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, most, penalty, questions = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), json.load(sys.stdin)
remote = "auto_map" in json.load(open(folder + "/config.json"))
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=remote)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=remote)
replies = []
for question in questions:
    chat = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**inputs, do_sample=False, repetition_penalty=penalty, max_new_tokens=most)
    replies.append(written[0, inputs["input_ids"].shape[1]:].tolist())
sampled = model.generate(**inputs, do_sample=True, repetition_penalty=1.3, max_new_tokens=most)
text = tokenizer.decode(sampled[0, inputs["input_ids"].shape[1]:])
print(json.dumps({"remote": remote, "class": type(model).__name__, "replies": replies, "sampled": text}))
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path)
    arguments.add_argument("--questions", type=int, default=100)
    arguments.add_argument("--most", type=int, default=64)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    folder = max((given.run / "releases").glob("*-instruct"))
    lines = (given.run / "shards" / "questions" / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["messages"][0]["content"] for line in lines[: given.questions]]
    published = load(folder)
    sampling = replace(published.generation.sampling, greedy=True)
    finished = subprocess.run(
        [sys.executable, "-c", THEIRS, str(folder.resolve()), str(given.most), str(sampling.repetition_penalty)],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        cwd="/",
    )
    if finished.returncode:
        sys.exit(finished.stderr)
    theirs = json.loads(finished.stdout)
    equal = 0
    for question, reply in zip(questions, theirs["replies"], strict=True):
        prompt = published.tokenizer.encode(render([{"role": "user", "content": question}], generation_prompt=True)).ids
        ours = list(
            Engine(published.model).stream(
                Request(prompt=prompt, sampling=sampling, stop_token_ids=published.stop_ids, max_new_tokens=given.most)
            )
        )
        equal += ours == reply
    print(f"{folder.name}: {theirs['class']}, remote code {'used' if theirs['remote'] else 'not needed'}")
    print(f"the same greedy tokens: {equal} of {len(questions)} replies")
    print(f"sampled with repetition penalty 1.3: {theirs['sampled']!r}")
    if given.out:
        found = {"release": folder.name, "class": theirs["class"], "remote_code": theirs["remote"], "equal": equal}
        found |= {"replies": len(questions), "most": given.most, "sampled": theirs["sampled"]}
        write_json(given.out, found | {"environment": environment()})
    sys.exit(0 if equal == len(questions) else 1)


if __name__ == "__main__":
    main()
