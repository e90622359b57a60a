"""Own chat: texts of yours, then conversations of yours -> a 4 M parameter model that answers, published as Qwen3.

    lilliput run own-chat --source texts=path/to/folder --source chats=path/to/talks.jsonl
    lilliput chat runs/own-chat

It learns the language from the texts and to answer from the conversations. Copy it (`lilliput recipe copy own-chat`)
and change what you like; the guide "your own text" goes through it.
"""

from dataclasses import replace

from lilliput.base.units import Share, Tokens
from lilliput.data.chat_rows import ChatData
from lilliput.data.corpora.chat_files import ChatFiles
from lilliput.growth.add_tokens import AddTokens
from lilliput.optim.normuon import NorMuon
from lilliput.optim.schedule import WarmupStableDecay
from lilliput.publish.export import Generation
from lilliput.publish.hf_formats.qwen3 import Qwen3Format
from lilliput.recipe import Release
from lilliput.recipes import own_text
from lilliput.tokenizer.chatml import CHATML
from lilliput.train.phase import Phase

pretrain = own_text.recipe.timeline[0]

recipe = replace(
    own_text.recipe,
    name="own-chat",
    about="A small attention model that learned from a folder of texts, and to answer from conversations.",
    # messages, ShareGPT, prompt and completion, or Alpaca; --source chats=... says others
    corpora={**own_text.recipe.corpora, "chats": ChatFiles(paths=("chats",))},
    tokenizer_corpora=("texts",),
    timeline=(
        pretrain,
        AddTokens(tokens=CHATML),
        Phase(
            name="sft",
            tokens=Tokens(260 * 8 * 512),  # steps x rows x length = 1,064,960
            length=512,
            batch_tokens=8 * 512,
            data=ChatData(corpus="chats"),
            optimizer=NorMuon(lr=1e-2, adam_lr=6e-3),
            schedule=WarmupStableDecay(warmup=Share(0.02), decay=Share(0.5), shape="linear", floor=0.02),
        ),
        Release(
            name="own-chat",
            layout=Qwen3Format(context=512),
            suite="own-chat",
            heldout="texts",
            chat="chats",
            generation=Generation(temperature=0.7, top_p=0.9, repetition_penalty=1.05, max_new_tokens=128),
        ),
    ),
)
