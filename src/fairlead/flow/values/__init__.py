"""Values between steps: their logical digest, and how they are stored and loaded."""

from fairlead.flow.values.content import digest as digest
from fairlead.flow.values.store import INSIDE as INSIDE
from fairlead.flow.values.store import load as load
from fairlead.flow.values.store import restore as restore
from fairlead.flow.values.store import save as save
