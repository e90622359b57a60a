"""Two AMD Ryzen AI MAX+ 395, as OdinNext was trained on: blocks 1 and 2 on the first, 3 and 4 on the second.

The last phase is data parallel. Untested: Lilliput has not run on ROCm yet. How what blocks share was treated, the card
does not say; means of two copies are our choice.
"""

from dataclasses import replace

from lilliput.machines.strix_halo import machine as strix_halo
from lilliput.machines.strix_halo import rating as of_one
from lilliput.train.block_parallel import BlockParallel

machine = replace(strix_halo, exchange=BlockParallel(machines=2, owners=(0, 0, 1, 1), shared="periodic"))
rating = replace(of_one, peak=2 * of_one.peak, source=f"two, both always busy: {of_one.source}")
