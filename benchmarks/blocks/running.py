"""What is shown of running the software: faults, serving, bulk prediction, and speed."""

from .schema import Block, Table

_SPEED = {
    "Whisper tiny.en on clips of 3 s, vs. 30 s for each": "whisper_3s/ratio:times",
    "the same on clips of 10 s": "whisper_10s/ratio:times",
    "WavLM-Large, clips of 3 to 11 s in random order, vs. padded batches of 4": "wavlm_inference/ratio:times",
    "- contribution of oneDNN's matrix products": "wavlm_inference/gain_linear:times",
    "- of running clips one by one, without padding": "wavlm_inference/gain_one_by_one:times",
    "- of fused attention": "wavlm_inference/gain_attention:times",
    "- of running the front end in pieces": "wavlm_inference/gain_front_end:times",
    "upper bound on the speedup: matrix products only, without padding": "wavlm_inference/floor:times",
    "WavLM-Large with 8-bit layers, vs. the stock model in float32": "wavlm_int8/ratio:times",
    "- vs. our model in float32": "wavlm_int8/gain:times",
    "- CCC between its predictions and those in float32, random encoders": "wavlm_int8/ccc:ccc3",
    "CCC between 8-bit and float32 predictions, Whisper tiny.en and MiniLM": "whisper_int8/ccc:ccc3",
    "training at the paper's size, one epoch over these clips": "train_step/ratio:times",
    "- contribution of encoding the texts once": "train_step/gain_cached_texts:times",
    "peak memory of this training, our model divided by stock": "train_memory/ratio:.2f",
    "everything except the encoders, share of a training step": "overhead/share:share1",
    "frozen encoders of the paper's size, first epoch vs. an epoch of a second run": "cached_epoch/ratio:times",
    "- including the start of the second run": "cached_epoch/ratio_with_start:times",
    "the first epoch with Whisper tiny.en and MiniLM vs. an epoch of a second run": "cached_epoch/ratio_small:times",
    "- including its start": "cached_epoch/ratio_with_start_small:times",
    "pipeline with Whisper tiny.en, audio only, 8 at once, vs. the given order": "pipeline/ratio:times",
    "the same with a transcript by the recognizer": "pipeline/ratio_with_recognizer:times",
}

_BFLOAT16 = {
    "WavLM-Large over clips of 3 to 11 s, vs. stock in float32, padded batches of 4": "wavlm_bf16/ratio:times",
    "- vs. stock in bfloat16, the same batches": "wavlm_bf16_vs_stock_bf16/ratio:times",
    "- vs. stock in bfloat16, one clip at a time, without padding": "wavlm_bf16_vs_stock_bf16_alone/ratio:times",
    "- vs. our model in float32": "wavlm_bf16/gain:times",
    "- vs. our model with 8-bit layers": "wavlm_bf16_vs_int8/ratio:times",
    "one clip of 6 s, vs. stock in bfloat16": "wavlm_bf16_single/ratio:times",
    "matrix products alone, share of our time": "wavlm_bf16/products:share",
    "CCC with the predictions in float32, random encoders of the paper's size": "wavlm_bf16/ccc:ccc3",
    "- with Whisper tiny.en and MiniLM": "small_bf16/ccc:ccc3",
    "training step, 8 clips of 6 s, all weights, vs. stock in float32": "train_bf16/ratio:times",
    "- vs. stock under bfloat16 autocast": "train_bf16_vs_stock_bf16/ratio:times",
    "- peak memory divided by that of stock in float32": "train_bf16_memory/ratio:.2f",
    "hours of speech encoded by WavLM-Large in an hour": "wavlm_bf16/hours_per_hour:.1f",
    "hours of speech in an hour of training steps, all weights": "train_bf16/hours_per_hour:.1f",
}

_RECOGNIZERS = {
    "faster-whisper (int8): times slower than ours, both one clip at a time": (
        "recognizer_vs_faster_whisper/ratio:times"
    ),
    "- faster-whisper (float32)": "recognizer_vs_faster_whisper_float32/ratio:times",
    "- the pipeline of transformers": "recognizer_vs_transformers/ratio:times",
    "faster-whisper (int8): times slower than ours, both in batches of 8": (
        "recognizer_batch_vs_faster_whisper_batch/ratio:times"
    ),
    "- than ours in bfloat16": "recognizer_bf16_batch_vs_faster_whisper_batch/ratio:times",
    "faster-whisper (int8), one clip at a time: times slower than ours in batches of 8": (
        "recognizer_vs_faster_whisper_batch/ratio:times"
    ),
    "- than ours in bfloat16, one clip at a time": "recognizer_bf16_vs_faster_whisper/ratio:times",
    "- than ours in bfloat16, in batches of 8": "recognizer_bf16_vs_faster_whisper_in_batches/ratio:times",
}
_RECOGNIZER_ERRORS = {
    "ours": "ours",
    "ours, in batches of 8": "ours_in_batches",
    "ours, bfloat16": "ours_bfloat16",
    "ours, bfloat16, in batches of 8": "ours_bfloat16_in_batches",
    "faster-whisper, int8": "faster_whisper_int8",
    "faster-whisper, int8, in batches of 8": "faster_whisper_int8_in_batches",
    "faster-whisper, float32": "faster_whisper_float32",
    "transformers": "transformers",
}

_ENCODER_PEERS = {
    "our encoder, float32": "ours",
    "stock, float32": "stock",
    "stock, float32, `torch.compile`": "compiled",
    "ONNX Runtime, export of the stock encoder": "onnx_stock",
    "ONNX Runtime, our export": "onnx_ours",
    "our encoder, bfloat16": "ours_bfloat16",
    "stock, bfloat16": "stock_bfloat16",
    "stock, bfloat16, `torch.compile`": "compiled_bfloat16",
    "the starter, audio only": "starter",
    "eGeMAPS by openSMILE, without a model": "egemaps",
}

RUNNING: dict[str, Block] = {
    "stress": Block(
        "stress",
        [
            "- **Audio:** {audio/inputs:,.0f} malformed or malicious files, arrays, paths, and URLs, each decoded in "
            "four ways, none with more than {audio/megabytes:.0f} MB of memory: {audio/crashes:.0f} crashes, hangs, "
            "or errors without a readable message. {audio/refused:,.0f} were refused in every way; the others gave "
            "predictions. The slowest took {audio/slowest_seconds:.1f} s on one core.",
            "- **Tables:** {tables/inputs:,.0f} malformed tables and folders, none with more than "
            "{tables/megabytes:.0f} MB: {tables/crashes:.0f} crashes, errors without a readable message, or file "
            "paths outside the folder.",
            "- **Kills:** {kills/injected:.0f} times kill -9 at random moments of training and annotation: "
            "{kills/results_lost:.0f} results lost. Run again, the commands ended with weights, scores, and shards "
            "that were bit-identical to those of uninterrupted runs.",
            "- **Commands into the wrong folder:** {guards/commands:.0f} commands with other data, and repetitions of "
            "finished commands, given for the folders of killed and finished runs: {guards/overwritten:.0f} changed a "
            "file, {guards/reported:.0f} were answered in one sentence.",
            "- **Other faults:** {faults/injected:.0f} full disks, damaged checkpoints, and killed processes: "
            "{faults/results_lost:.0f} results lost, {faults/reported:.0f} reported in one sentence.",
            "- **Demo page:** {space/clients:.0f} clients for {space/minutes:g} minutes: {space/answers:,.0f} "
            "answers, {space/wrong_answers:.0f} wrong; {space/aborted:,.0f} requests that were slow or aborted, "
            "{space/oversize:.0f} files that were too large, {space/rejected:,.0f} requests that a full queue "
            "rejected, and {space/failed:.0f} that failed. Memory grew by {space/memory_growth:.0%}, "
            "{space/files_left:.0f} files remained, and {space/leaks:.0f} ways were found to read another user's "
            "data.",
        ],
    ),
    "reader": Block(
        "reader",
        [
            "- Reading 100,000 rows needs {rows_100000/seconds:.0f} s and {rows_100000/peak_mb:,.0f} MB; per row, "
            "{rows_100000/per_row_growth:.2f} times the time for 10,000 rows.",
            "- At the end, the memory of `annotate`, `train`, and `predict` is {rows_100000/annotate_growth:.2f}, "
            "{rows_100000/train_growth:.2f}, and {rows_100000/predict_growth:.2f} times as large, compared with one "
            "fifth of the way through.",
        ],
    ),
    "serving": Block(
        "serving",
        [
            "- Ten users at once on the demo page, 100 requests, while one more speaks into the tab Live: "
            "{space/wrong_answers:.0f} wrong answers, {space/live_results:.0f} live results; memory grew by "
            "{space/memory_of_users:share} with the first ten requests and the tab Live, then by "
            "{space/memory_growth:share}.",
            "- The accessibility checker axe-core finds {axe/serious:.0f} serious violations.",
            "- Page, pipeline, `train.py --do_predict`, and plain `AutoModel` differ by at most "
            "{agreement/max_difference:.0e} on the same clip.",
        ],
    ),
    "predict": Block(
        "predict",
        [
            "With words and description, one core predicts {speed/hours_per_hour_and_core:hours} hours of sound per "
            "hour, and with `--precision bfloat16` {speed_bfloat16/hours_per_hour_and_core:hours}, start-up included. "
            "{speed/share_recognize:share} of the time goes into the recognition of words "
            "({speed_bfloat16/share_recognize:share} in bfloat16), {speed/share_encode:share} into the model. Two "
            "processes on two cores are {speed/two_processes:.2f} times as fast as one.",
        ],
    ),
    "speed": Block(
        "speed",
        [
            Table(
                ("", "", "`python -m msfser.benchmarks.speed ...`"),
                {words: (f"{{{key}}}", f"{{{key.partition(':')[0]}:options}}") for words, key in _SPEED.items()},
            ),
            "\n{wavlm_inference/ratio:machine}. In our inference with WavLM-Large, "
            "{wavlm_inference/products:share} of the time is spent in matrix products.",
        ],
    ),
    "bfloat16": Block(
        "speed",
        [
            Table(("", ""), {words: (f"{{{key}}}",) for words, key in _BFLOAT16.items()}),
            "\n{wavlm_bf16/ratio:machine}. The matrix products run at {wavlm_bf16/gflops:.0f} GFLOP/s.",
        ],
    ),
    "encoder_peers": Block(
        "speed",
        [
            Table(
                ("one clip at a time", "hours of sound in an hour", "time divided by ours in the same precision"),
                _ENCODER_PEERS,
                ["{encoder_peers/*/hours_per_hour:.2f}", "{encoder_peers/*/ratio:times}"],
            ),
            "\n{encoder_peers/ours/ratio:machine}.",
        ],
    ),
    "recognizers": Block(
        "speed",
        [
            Table(("", ""), {words: (f"{{{key}}}",) for words, key in _RECOGNIZERS.items()}),
            "",
            Table(
                ("", "word error rate", "median error of word times, s"),
                _RECOGNIZER_ERRORS,
                ["{recognizer_wer/*:rate1}", "{recognizer_times/*:.3f}"],
            ),
            "\n{recognizer_vs_faster_whisper/ratio:machine}.",
        ],
    ),
    "live": Block(
        "live",
        [
            Table(
                ("streams with the starter, windows of 4 s, hops of 1 s", ""),
                {
                    "time for a second of sound, with words": "rtf/words:.2f",
                    "- audio only": "rtf/sound:.2f",
                    "delay of a result after the end of its hop, median": "delay/median:.2f",
                    "growth of memory over an hour of sound": "memory/growth:share",
                    "largest difference from the recording, cut the same way": "equality/max_difference:.0e",
                },
                ["{*}"],
            )
        ],
    ),
}
