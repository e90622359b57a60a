"""The first recipe of somebody's own: a purpose and some minutes become a recipe file and a machine file.

project = make(Answers(...), report)      phases that fill the minutes on this machine, as two files and a plan
write(project)                            both files at once, in a new folder
"""

from lilliput.start.project import Answers, Project, make, refuse_taken, write
from lilliput.start.purposes import PURPOSES, Purpose
from lilliput.start.sources import readable

__all__ = ["PURPOSES", "Answers", "Project", "Purpose", "make", "readable", "refuse_taken", "write"]
