"""Why a question was answered as it was: attention on what the answer rests on, before and after.

lemmas          what theory says of masses and margins, as pure functions
needle          where in the document the answer's ground stands
attention_mass  the needle's mass, margin and lead in one layer
measure         one question behind one prefix, all layers
dilution        the same needle in ever longer pieces of the document
strips          the document in sections: where attention goes, where text comes back
diagnosis       all of it, for one question: `diagnose`
as_json, page   what came out, for a script and for a browser

Knows the engine, and like it loads torch when it is imported.
"""

from ttt_core.diagnostics.diagnosis import Diagnosis, check, diagnose

__all__ = ["Diagnosis", "check", "diagnose"]
