"""Dynamic networks, what they cost, and how they train; knows no orchestration."""

from methods.api import Method
from methods.condconv import CondConv
from methods.condensenet import CondenseNet
from methods.dense import Dense
from methods.dsnet import DSNet
from methods.resrep import ResRep
from methods.skipnet import SkipNet

METHODS: dict[str, type[Method]] = {
    "dense": Dense,
    "skipnet": SkipNet,
    "condensenet": CondenseNet,
    "condconv": CondConv,
    "dsnet": DSNet,
    "resrep": ResRep,
}
"""Every method by the name that studies use; a new one is added here by hand."""
