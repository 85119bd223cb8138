"""beam_eval.py beside vLLM's own LLM.beam_search and transformers' generate: same problems, beams and limit.

    python -m benchmark.speed.beams                                      (any machine with vLLM; the miniature)
    python -m benchmark.speed.beams --model Qwen/Qwen2.5-3B-Instruct --dataset math500 --max-total-tokens 2048

The limit of a response is --limit-ratio times the mean length of the answers, as far as the window allows: published
evaluations give 2,048 tokens to answers of about 500. The penalty is 0, where all versions of LLM.beam_search agree.
Every program runs --rounds times, in turn, each time with an empty prefix cache; its fastest run counts. Printed are
seconds, problems a second, and how many answers are those of beam_eval.py.
"""

import time
from dataclasses import dataclass

import torch
import tyro
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from beam_eval import Rule, beam_search
from common.data import fit_window, load_problems, prompt_file_of, render_prompts
from common.rollout import start_sampler, stop_token_ids
from common.run import resolve_model


@dataclass
class Args:
    model: str = "toy"
    """Hugging Face id or folder; toy for the built-in miniature"""
    dataset: str = "toy_test"
    """name as in common/data.py, or a .jsonl file"""
    num_problems: int = 64
    """number of problems, the first of the data set"""
    num_beams: int = 4
    """W, number of beams"""
    max_total_tokens: int = 128
    """window: tokens of prompt and response"""
    limit_ratio: float = 4.0
    """longest response, as a multiple of the mean length of the answers"""
    rounds: int = 2
    """number of times that each program runs"""
    transformers: bool = True
    """run the two programs without vLLM too"""


def main(args: Args) -> None:
    model = resolve_model(args.model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    problems = load_problems(args.dataset)[: args.num_problems]
    prompts = render_prompts(tokenizer, problems, prompt_file_of(args.dataset))
    _, prompts = fit_window(problems, prompts, args.max_total_tokens)
    longest = max(map(len, prompts))
    stop_ids = stop_token_ids(model, tokenizer)
    rule, old_rule = (Rule(name, args.num_beams, frozenset(stop_ids)) for name in ("transformers", "vllm-0.11"))
    settings = dict(max_logprobs=rule.num_children, max_num_seqs=512)
    sampler = start_sampler("vllm", model, args.max_total_tokens, **settings)
    if sampler.on_gpu:
        args.transformers = False  # the card holds one engine
    # LLM.beam_search wants a tokenizer, and our engine is started without: newer versions ask the renderer for it.
    getattr(sampler.llm, "renderer", sampler.llm).get_tokenizer = lambda: tokenizer

    def ours(sampler, rule=rule) -> list[list[int]]:
        found = dict(x for batch in beam_search(sampler, rule, prompts, longest + limit, [0.0]) for x in batch)
        return [found[i][0.0].tokens for i in range(len(prompts))]

    def vllm_itself() -> list[list[int]]:
        from vllm.sampling_params import BeamSearchParams

        params = BeamSearchParams(beam_width=args.num_beams, max_tokens=limit, length_penalty=0.0)
        outputs = sampler.llm.beam_search([{"prompt_token_ids": prompt} for prompt in prompts], params)
        return [x.sequences[0].tokens[len(prompt) :] for x, prompt in zip(outputs, prompts, strict=True)]

    def generate() -> list[list[int]]:
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        beams = dict(num_beams=args.num_beams, do_sample=False, early_stopping="never", length_penalty=0.0)
        config = GenerationConfig(**beams, max_new_tokens=limit, eos_token_id=stop_ids, pad_token_id=0)
        rows = plain.generate(ids, attention_mask=mask, generation_config=config)[:, longest:].tolist()
        ends = [next((t + 1 for t, token in enumerate(row) if token in stop_ids), len(row)) for row in rows]
        return [row[:end] for row, end in zip(rows, ends, strict=True)]

    limit = args.max_total_tokens - longest
    length = sum(map(len, ours(sampler))) / len(prompts)
    limit = min(round(args.limit_ratio * length), args.max_total_tokens - longest)
    programs = {
        "beam_eval.py, vLLM": lambda: ours(sampler),
        "beam_eval.py, vLLM, --rule vllm-0.11": lambda: ours(sampler, old_rule),
        "LLM.beam_search": vllm_itself,
    }
    if args.transformers:
        plain = AutoModelForCausalLM.from_pretrained(model).eval()
        other = start_sampler("transformers", model, args.max_total_tokens)
        programs |= {"beam_eval.py, transformers": lambda: ours(other), "generate": generate}
    seconds, answers = {name: [] for name in programs}, {}
    for _ in range(args.rounds):
        for name, program in programs.items():
            sampler.llm.reset_prefix_cache()
            start = time.perf_counter()
            answers[name] = program()
            seconds[name].append(time.perf_counter() - start)
    print(f"\n{len(prompts)} problems, {args.num_beams} beams, answers of {length:.1f} tokens, limit {limit}")
    first = answers["beam_eval.py, vLLM"]
    for name, times in seconds.items():
        equal = sum(x == y for x, y in zip(answers[name], first, strict=True))
        speed = f"{min(times):8.2f} s  {len(prompts) / min(times):8.1f} problems/s"
        print(f"{name:38}{speed}  {equal} of {len(first)} answers equal")
    for mine, theirs in (("vLLM", "LLM.beam_search"), ("transformers", "generate"))[: 1 + args.transformers]:
        print(f"{theirs} / beam_eval.py, {mine}: {min(seconds[theirs]) / min(seconds[f'beam_eval.py, {mine}']):.1f}")
    sampler.close()


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
