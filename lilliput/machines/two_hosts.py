"""Two hosts that share no disk, a thread of each: blocks in parallel, for a trial of it on one computer or on two.

Started by `torchrun --nnodes 2 --node-rank RANK ... -m lilliput ...` on each; docs/guides/two-machines.md.
"""

from lilliput.train.block_parallel import BlockParallel
from lilliput.train.machine import Machine

machine = Machine(device="cpu", threads=1, exchange=BlockParallel(machines=2, shared="periodic", every=20, limit=10.0))
