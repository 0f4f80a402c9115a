"""Signals of the recognizer, computed once: see docs/decisions.md, 2026-11-27."""
import sys, math, pickle, itertools, time
from dataclasses import dataclass, field
import numpy as np, pandas as pd, torch
torch.set_num_threads(1)
from msfser import transcription_msfser as T
from msfser.transcription_msfser import *
from msfser.transcription_msfser import _LAG_FRAMES, _is_speech, _loops
from msfser.encoders_msfser import whisper_states
from msfser.word_times_msfser import FRAME, LONGEST, monotonic_starts
from msfser.audio_msfser import load_audio, SAMPLING_RATE
from msfser.training import augmentation as A
from msfser.feature_extraction_msfser import MsfSerFeatureExtractor

@dataclass(frozen=True)
class Rich(DecodedClip):
    extra: dict = field(default_factory=dict)

class R(MsfSerRecognizer):
    @torch.no_grad()
    def _decode_batch(self, sounds, window, length, language, tokens):
        extract = MsfSerFeatureExtractor(kind="log_mel", feature_size=self.model.config.num_mel_bins, min_seconds=window, max_seconds=LONGEST)
        f = extract(sounds, SAMPLING_RATE, return_tensors="pt")
        allst, _ = whisper_states(self.model.model.encoder, f["input_features"], f["attention_mask"].bool())
        states = self._append_silence(allst[-1])
        codes = [language]*len(sounds)
        prompts = [self._prompt(c) for c in codes]
        if tokens is None:
            tokens = self._generate_tokens(states, prompts, length)
        end = self.ids.eos_token_id
        longest = max(map(len, tokens))
        ids = [p + t + [end]*(longest-len(t)) for p, t in zip(prompts, tokens)]
        output = self.model.model.decoder(input_ids=torch.tensor(ids), encoder_hidden_states=states, output_attentions=True)
        heads = [output.cross_attentions[l][:, h] for l, h in self.ids.alignment_heads]
        attention = torch.stack(heads).mean(0)
        sup = torch.tensor(sorted(set(self.ids.suppress_tokens)))
        forms = [self.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (" (speaking in foreign language)", " [speaking foreign language]")]
        results = []
        for i, ids_of_clip in enumerate(tokens):
            first = len(prompts[i])-1; last = first+len(ids_of_clip)
            logits = self.model.proj_out(output.last_hidden_state[i, :last+1]).log_softmax(-1)
            targets = torch.tensor([*ids_of_clip, end])
            frames = max(1, math.ceil(len(sounds[i])/FRAME))
            weights = attention[i, first:last+1, :].double().numpy()
            mass = weights[:, :frames].sum(1)
            weights = weights[:, :frames]
            weights = weights/weights.sum(1, keepdims=True)
            starts = monotonic_starts(weights)
            edges = list(itertools.pairwise([*starts, frames]))
            inside = [weights[k, slice(*e)].sum() for k, e in zip(range(len(ids_of_clip)), edges)]
            lp = logits[first:].gather(1, targets[:, None])[:, 0]
            top = logits[first:].topk(2, -1).values
            ent = -(logits[first:].exp()*logits[first:]).sum(-1)
            hid = output.last_hidden_state[i, first:last+1]
            ex = dict(lp=lp.numpy(), top=top.numpy(), ent=ent.numpy(), inside=np.array(inside), mass=mass, frames=frames,
                enc=np.stack([s[i, :frames].mean(0).numpy() for s in allst]).astype(np.float32), encstd=allst[-1][i,:frames].std(0).numpy(),
                dec=hid.mean(0).numpy(), dec0=hid[0].numpy(), decmin=hid.numpy().std(0), sup=logits[first][sup].numpy(), seconds=len(sounds[i])/SAMPLING_RATE)
            results.append(Rich(tokens=ids_of_clip, language="en", no_speech=logits[0, self.ids.no_timestamps_token_id-1].exp().item(),
                log_probability=lp.mean().item(), starts=[max(0, s-_LAG_FRAMES) for s in starts], focus=float(np.mean(inside or [0.0])), extra=ex))
        return results

def rows(corpus, per):
    base = "data/"
    if corpus == "probe":
        t = pd.read_parquet("data/probe/metadata.parquet"); t = t.assign(path="data/probe/"+t.audio, spk=t.speaker)
    else:
        t = pd.read_csv(f"{base}{corpus}/metadata.csv", dtype=str); t = t.assign(path=f"{base}{corpus}/"+t.file_name, spk=t["voice"] if "voice" in t else t.speaker_id)
    t.spk = t.spk.fillna(t.path)
    if corpus == "emotiontts_kr": t.spk = t.spk.replace({"nea": "ema", "neb": "emb"})
    t = t.assign(stem=t.path.str.rsplit("/", n=1).str[-1]).sort_values("stem")
    return t.groupby("spk", group_keys=False)[["path","spk"]].apply(lambda g: g.sample(min(per, len(g)), random_state=0))

if __name__ == "__main__":
    kind, out = sys.argv[1], sys.argv[2]
    plan = dict(a.split("=") for a in sys.argv[3:])
    from msfser.benchmarks.command import load_recognizer
    r0 = load_recognizer(); r = R(r0.model, r0.tokenizer)
    todo = pd.concat([rows(c, int(n)).assign(corpus=c) for c, n in plan.items()]).sample(frac=1, random_state=1)
    todo = todo.reset_index(drop=True)
    done = []; t0 = time.time()
    for s in range(0, len(todo), 96):
        part = todo.iloc[s:s+96]
        sounds = []
        for i, p in zip(part.index, part.path):
            x = load_audio(p); import zlib, os; d = np.random.default_rng(zlib.crc32(f"{kind} {os.path.basename(p).rsplit(chr(46),1)[0]}".encode()))
            x = {"clean": A.nothing, "telephone": A.telephone, "noise": lambda x, d: A.noise(x, d, 10.0), "room": A.room, "augment": A.augment}[kind](x, d)
            sounds.append(np.asarray(x, np.float32)[:30*16000])
        t1 = time.process_time()
        for (i, row), c in zip(part.iterrows(), r._decode(sounds, None)):
            done.append(dict(corpus=row.corpus, spk=row.corpus+"-"+row.spk, path=row.path, kind=kind, text=r._text(c), tokens=c.tokens, nsp=c.no_speech, lp=c.log_probability, focus=c.focus, speech=_is_speech(c), loops=_loops(c), nwords=len(r._words(c)), **{"x_"+k: v for k, v in c.extra.items()}))
        pickle.dump(done, open(out+".tmp", "wb")); import os; os.replace(out+".tmp", out)
        print(kind, s+len(part), len(todo), round(time.time()-t0), round(time.process_time()-t1,1), flush=True)
