"""Signals of a recognizer's certainty, and the sound, compared by the protocol of `english.py` on clean clips."""
import sys, os, pickle
from pathlib import Path
import numpy as np, pandas as pd
from scipy import optimize
from msfser.benchmarks import english as B
_min = optimize.minimize
B.optimize.minimize = lambda f, x, jac: _min(f, x, jac=jac, method="L-BFGS-B" if len(x) > 20 else None)
rows = pickle.load(open("clean.pkl", "rb"))
def signals(r):
    lp, e, n = r["x_lp"], np.sort(r["x_ent"]), len(r["x_lp"])
    one = dict(lp=lp.mean(), ent=e[(n-1)//2], tokens=np.log(n), inside=r["x_mass"].mean(), no_speech=np.log(r["nsp"]+1e-9), per_second=n/r["x_seconds"], focus=r["focus"], first=r["x_sup"].max(), lowest=lp.min())
    return one, r["x_enc"][-1], r["x_dec"]
made = [signals(r) if r["speech"] and not r["loops"] and r["nwords"] else None for r in rows]
base = pd.DataFrame({"corpus": [r["corpus"] for r in rows], "speaker": [r["spk"] for r in rows], "distortion": ""})
base["fold"] = B._folds(base)
def run(name, pick, penalty=1e-3):
    B._PENALTY = penalty
    x = base.assign(signals=[[np.asarray(pick(*m), float).tolist()] if m else [] for m in made])
    heard = x.corpus.isin(B.HEARD).to_numpy()
    s = B.decided(x[heard]).scores(x)
    for f in range(B.FOLDS):
        i = heard & (x.fold == f).to_numpy(); s[i] = B.decided(x[heard & ~i]).scores(x[i])
    out = {r["name"].replace("english_", ""): r["value"] for r in B._shares("", x, s > 0)}
    for c in B.HEARD:
        u = x[x.corpus == c]; out |= {r["name"].replace("english_", ""): r["value"] for r in B._shares("unheard/", u, B.decided(x[heard & (x.corpus != c)]).scores(u) > 0)}
    print(f"{name:28} {penalty:g}", {k: round(100*v, 1) for k, v in out.items()}, flush=True)
run("lp", lambda o, e, d: [o["lp"]])
run("ent", lambda o, e, d: [o["ent"]])
run("lp+ent", lambda o, e, d: [o["lp"], o["ent"]])
for k in ("tokens", "inside", "no_speech", "per_second", "focus", "first", "lowest"):
    run("lp+ent+"+k, lambda o, e, d: [o["lp"], o["ent"], o[k]])
for p in (1e-3, 1e-2, 1e-1):
    run("encoder", lambda o, e, d: e, p)
    run("encoder+lp+ent", lambda o, e, d: np.r_[e, o["lp"], o["ent"]], p)
    run("decoder", lambda o, e, d: d, p)
for B.MOST_FOREIGN in (0.005, 0.01, 0.02, 0.03, 0.05):
    run(f"lp+ent at {B.MOST_FOREIGN}", lambda o, e, d: [o["lp"], o["ent"]])
