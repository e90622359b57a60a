"""Two workers on one processor, of one thread each; started by `torchrun --nproc-per-node 2 -m lilliput ...`."""

from lilliput.train.all_reduce import AllReduce
from lilliput.train.machine import Machine

machine = Machine(device="cpu", threads=1, exchange=AllReduce(workers=2))
