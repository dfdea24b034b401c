"""Values between steps: their logical digest, and how they are stored and loaded."""

from clewline.flow.values.storage import INSIDE as INSIDE
from clewline.flow.values.storage import digest as digest
from clewline.flow.values.storage import in_canonical_layout as in_canonical_layout
from clewline.flow.values.storage import load as load
from clewline.flow.values.storage import restore as restore
from clewline.flow.values.storage import save as save
