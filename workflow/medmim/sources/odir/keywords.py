"""What ODIR's diagnostic keywords mean: which are the same, which include others, and what is true of an eye.

Keywords are an ophthalmologist's in Chinese, translated: parted by full-width commas, in no order, some of them in several
wordings, some wider than others. The tables name who says so.
"""

import re
from functools import cache
from typing import Literal

from medmim.questions.meanings import Entry, Thesaurus

WORDS = "the words themselves"
CHALLENGE = "https://odir2019.grand-challenge.org/dataset/"
ICDR = "Wilkinson et al., Ophthalmology 2003;110:1677, the international scale of diabetic retinopathy"
META_PM = "Ohno-Matsui et al., Am J Ophthalmol 2015;159:877, the classification of myopic maculopathy"
BECKMAN = "Ferris et al., Ophthalmology 2013;120:844, the classification of age-related macular degeneration"
ETDRS = "ETDRS report 3, Int Ophthalmol Clin 1987;27:254: photocoagulation is seen as its spots"
HYPERTENSION = "Wong and Mitchell, N Engl J Med 2004;351:2310: arteriolar narrowing and hardening are its signs"
MESH_CATARACT = "MeSH, Cataract: an opacity of the lens"
CAUTION = "no source was found that tells them apart: never asked against each other"

ARTEFACTS = frozenset(
    (
        "lens dust",
        "optic disc photographically invisible",
        "low image quality",
        "image offset",
        "wrong background",
        "anterior segment image",
        "no fundus image",
    )
)
"""Keywords that say how the photograph came out, not what the eye has: the first four by CHALLENGE, the others by WORDS."""

SAME = (
    Entry("nonproliferative", "non proliferative", WORDS),
    Entry("nonproliferative", "non-proliferative", WORDS),
    Entry("optic disc", "optic disk", WORDS),
    Entry("macular epiretinal membrane", "epiretinal membrane over the macula", WORDS),
    Entry("myopic retinopathy", "myopia retinopathy", WORDS),
    Entry("suspected", "suspicious", WORDS),
    Entry("atrophy", "atrophic change", WORDS),
    Entry("pigmentation disorder", "abnormal pigment", WORDS),
    Entry("laser spot", "fundus laser photocoagulation spots", ETDRS),
    Entry("laser spot", "post laser photocoagulation", ETDRS),
    Entry("laser spot", "post retinal laser surgery", ETDRS),
)
WIDER = (
    Entry("nonproliferative retinopathy", "diabetic retinopathy", ICDR),
    Entry("proliferative retinopathy", "diabetic retinopathy", ICDR),
    Entry("macular", "maculopathy", WORDS),
    Entry("myopic maculopathy", "pathological myopia", META_PM),
    Entry("myopic retinopathy", "pathological myopia", CHALLENGE),
    Entry("cataract", "refractive media opacity", MESH_CATARACT),
    Entry("vitreous opacity", "refractive media opacity", WORDS),
    Entry("asteroid hyalosis", "vitreous opacity", "Bergren et al., Am J Ophthalmol 1991;111:289"),
    Entry("retinal pigmentation", "pigmentation disorder", WORDS),
    Entry("depigmentation", "pigmentation disorder", WORDS),
    Entry("pigmentation proliferation", "pigmentation disorder", WORDS),
    Entry("pigment epithelium proliferation", "pigmentation disorder", WORDS),
    Entry("chorioretinal atrophy", "retinal atrophy", WORDS),
    Entry("retinochoroidal coloboma", "choroidal coloboma", WORDS),
)
OVERLAPPING = (
    Entry("drusen", "age-related macular degeneration", BECKMAN),
    Entry("intraretinal microvascular abnormality", "nonproliferative retinopathy", ICDR),
    Entry("microvascular anomalies", "nonproliferative retinopathy", ICDR),
    Entry("intraretinal hemorrhage", "nonproliferative retinopathy", ICDR),
    Entry("intraretinal hemorrhage", "vein occlusion", CAUTION),
    Entry("chorioretinal atrophy", "pathological myopia", META_PM),
    Entry("peripapillary atrophy", "pathological myopia", META_PM),
    Entry("tessellated fundus", "pathological myopia", META_PM),
    Entry("maculopathy", "pathological myopia", META_PM),
    Entry("arteriosclerosis", "hypertensive retinopathy", HYPERTENSION),
    Entry("spotted membranous change", "epiretinal membrane", CAUTION),
    Entry("congenital choroidal coloboma", "retinochoroidal coloboma", WORDS),
    Entry("old chorioretinopathy", "central serous chorioretinopathy", WORDS),
    Entry("old chorioretinopathy", "chorioretinal atrophy", CAUTION),
    Entry("retinal pigment epithelium atrophy", "chorioretinal atrophy", CAUTION),
    Entry("retinal pigment epithelium atrophy", "depigmentation of the retinal pigment epithelium", CAUTION),
    Entry("white vessel", "retinal vascular sheathing", CAUTION),
    Entry("optic discitis", "optic disc edema", CAUTION),
    Entry("optic nerve atrophy", "abnormal color of optic disc", CAUTION),
    Entry("vitreous degeneration", "asteroid hyalosis", CAUTION),
    Entry("vitreous degeneration", "vitreous opacity", CAUTION),
    Entry("wedge white line change", "wedge-shaped change", CAUTION),
)
THESAURUS = Thesaurus(same=SAME, wider=WIDER, overlapping=OVERLAPPING, filler_words=("the", "of", "with", "to"))

Diagnoses = tuple[str, ...]
"""The diagnoses of one eye in preferred names, sorted."""


@cache
def parse_diagnoses(keywords: str) -> Diagnoses:
    """The diagnoses in an eye's keywords; artefacts, and what a narrower keyword of the same eye includes, are left out."""
    names = dict.fromkeys(THESAURUS.rename(k) for k in re.split(r"[,，;；、]", keywords))
    diagnoses = [n for n in names if n and n not in ARTEFACTS]
    narrowest: list[str] = []
    for name in sorted(diagnoses, key=lambda n: (-len(THESAURUS.read_meaning(n).implied_words), n)):
        if not any(THESAURUS.implies(kept, name) for kept in narrowest):
            narrowest.append(name)
    return tuple(sorted(narrowest))


@cache
def find_truth(diagnosis: str, eye: Diagnoses) -> Literal["true", "unknown", "false"]:
    """Whether an eye of these diagnoses has a diagnosis; unknown where one is wider, narrower where it counts, or suspected."""
    if any(THESAURUS.implies(d, diagnosis) for d in eye):
        return "true"
    return "unknown" if any(THESAURUS.may_agree(d, diagnosis) for d in eye) else "false"


def is_false(diagnoses: Diagnoses, eye: Diagnoses) -> bool:
    """Whether at least one of the diagnoses is certainly not the eye's."""
    return any(find_truth(d, eye) == "false" for d in diagnoses)
