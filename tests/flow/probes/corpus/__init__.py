"""The corpus, by the kind of thing that changes."""

from flow.probes.corpus import readers, strings

PROBES = [*strings.PROBES, *readers.PROBES]
