"""What VQA-RAD's free answers mean: clinicians wrote one plane, modality or place in several ways.

The tables name who says that two answers are the same, or that one includes the other.
"""

from medmim.questions.meanings import Entry, Thesaurus

WORDS = "the words themselves"
VQA_MED = "https://github.com/abachaa/VQA-Med-2019, the classes of planes and modalities"
FMA = "Foundational Model of Anatomy: is part of, or is the adjective of"
FLEISCHNER = "Hansell et al., Radiology 2008;246:697, glossary of the Fleischner Society"
CAUTION = "no source was found that tells them apart: never asked against each other"
NUMBERS = ("one", "two", "three", "four", "five", "six")

SAME = (
    Entry("xray", "x-ray", WORDS),
    Entry("xray", "x ray", WORDS),
    Entry("xray", "radiograph", WORDS),
    Entry("xray", "xr", VQA_MED),
    Entry("xray", "plain film", VQA_MED),
    Entry("mri", "mr", VQA_MED),
    Entry("mri", "magnetic resonance imaging", WORDS),
    Entry("ct", "computed tomography", WORDS),
    Entry("ct", "cat scan", WORDS),
    Entry("ultrasound", "us", VQA_MED),
    Entry("noncontrast", "non contrast", WORDS),
    Entry("noncontrast", "non-contrast", WORDS),
    Entry("noncontrast", "no contrast", WORDS),
    Entry("noncontrast", "without contrast", WORDS),
    *(Entry(t, f"{t}{end}", WORDS) for t in ("t1", "t2") for end in ("w", "-weighted")),
    Entry("dwi", "diffusion weighted", VQA_MED),
    Entry("dwi", "diffusion-weighted", VQA_MED),
    Entry("axial", "transverse", WORDS),
    Entry("pa", "posteroanterior", WORDS),
    Entry("pa", "posterior anterior", WORDS),
    Entry("pa", "posterior-anterior", WORDS),
    Entry("ap", "anteroposterior", WORDS),
    Entry("ap", "anterior posterior", WORDS),
    Entry("ap", "anterior-posterior", WORDS),
    Entry("bilateral", "both", WORDS),
    Entry("bilateral", "bilaterally", WORDS),
    *(Entry(side, f"{side}{join}sided", WORDS) for side in ("left", "right") for join in ("-", " ")),
    *(Entry("no", name, WORDS) for name in ("none", "nothing", "not seen", "not present", "absent")),
    *(Entry(str(number), name, WORDS) for number, name in enumerate(NUMBERS, 1)),
    Entry("heart", "cardiac", FMA),
    Entry("lung", "pulmonary", FMA),
    Entry("brain", "cerebral", FMA),
    Entry("kidney", "renal", FMA),
    Entry("liver", "hepatic", FMA),
    Entry("abdomen", "abdominal", FMA),
    Entry("chest", "thorax", FMA),
    Entry("chest", "thoracic", FMA),
    Entry("cardiomegaly", "enlarged heart", WORDS),
    Entry("cardiomegaly", "enlarged cardiac silhouette", WORDS),
    Entry("edema", "oedema", WORDS),
    Entry("tumor", "tumour", WORDS),
    Entry("infarct", "infarction", WORDS),
    Entry("hemorrhage", "bleed", WORDS),
    Entry("hemorrhage", "bleeding", WORDS),
)
WIDER = (
    *(Entry(name, "mri", VQA_MED) for name in ("t1", "t2", "flair", "dwi", "adc", "stir", "mra")),
    Entry("cta", "ct", VQA_MED),
    *(Entry(name, "frontal", WORDS) for name in ("pa", "ap")),
    *(Entry("bilateral", side, WORDS) for side in ("left", "right")),
    *(Entry(f"{place} lobe", "lung", FMA) for place in ("upper", "middle", "lower")),
    *(Entry(name, "chest", FMA) for name in ("lung", "heart", "mediastinum")),
    *(Entry(name, "brain", FMA) for name in ("frontal lobe", "parietal", "temporal", "occipital", "cerebellum", "hemisphere")),
    *(Entry(name, "head", FMA) for name in ("brain", "skull")),
    *(Entry(name, "abdomen", FMA) for name in ("liver", "kidney", "spleen", "pancreas", "stomach", "bowel")),
    Entry("colon", "bowel", FMA),
    Entry("consolidation", "opacity", FLEISCHNER),
    Entry("infiltrate", "opacity", FLEISCHNER),
    *(Entry(name, "lesion", FLEISCHNER) for name in ("mass", "nodule", "tumor")),
)
OVERLAPPING = (
    *(Entry("pneumonia", name, FLEISCHNER) for name in ("opacity", "consolidation", "infiltrate")),
    Entry("infiltrate", "consolidation", FLEISCHNER),
    Entry("mass", "tumor", CAUTION),
    Entry("infarct", "stroke", CAUTION),
)
ASPECTS = (
    ("axial", "coronal", "sagittal", "oblique", "frontal", "pa", "ap", "lateral"),
    ("ct", "mri", "xray", "ultrasound", "mammogram", "pet", "angiogram", "fluoroscopy", "cta", "mra"),
    ("t1", "t2", "flair", "dwi", "adc", "stir"),
    ("contrast", "noncontrast"),
    ("left", "right", "bilateral", "midline"),
    ("upper", "middle", "lower", "superior", "inferior"),
    ("anterior", "posterior"),
    ("chest", "head", "abdomen", "pelvis", "brain", "lung", "heart", "liver", "kidney"),
)
FILLER_WORDS = (
    *("a", "an", "the", "of", "in", "on", "at", "to", "and", "or", "with", "is", "are", "it", "this", "there"),
    *("scan", "image", "imaging", "view", "plane", "side", "weighted"),
)
THESAURUS = Thesaurus(same=SAME, wider=WIDER, overlapping=OVERLAPPING, aspects=ASPECTS, filler_words=FILLER_WORDS)


def may_agree(answer: str, other: str) -> bool:
    """Whether both answers to one question may be true of one image."""
    return THESAURUS.may_agree(answer, other)
