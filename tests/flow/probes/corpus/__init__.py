"""The corpus, by the kind of thing that changes."""

from flow.probes.corpus import code, readers, strings, surroundings

PROBES = [*strings.PROBES, *readers.PROBES, *surroundings.PROBES, *code.PROBES]
