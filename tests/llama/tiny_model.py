"""Writes a model of the llama architecture that is half a megabyte and speaks at random: tiny_model.py FILE.

Everything that a real model file has is there: a vocabulary with byte fallback, a chat template,
two layers. The weights are random but the same every time.
"""

import sys

import gguf
import numpy

WIDTH, LAYERS, HEADS, INNER, CONTEXT = 64, 2, 4, 128, 4096
WORDS = (
    "the a of to and in is it that was for on are with as be at one have this from or had by not but "
    "what all were when we there can an your which their said if do will each about how up out them "
    "then she many some so these would other into has more her two like him see time could no make "
    "than first been its who now people my made over did down only way find use may water long little "
    "very after words called just where most know get through back much before go good new write our "
    "used me man too any day same right look think also around another came come work three word must "
    "because does part even place well such here take why things help put years different away again "
    "off went old number great tell men say small every found still between name should home big give "
    "air line set own under read last never us left end along while might next sound below saw "
    "something thought both few those always looked show large often together asked house world going "
    "want school important until form food keep children feet land side without boy once animals life "
    "enough took four head above kind began almost live page got earth need far hand high year mother "
    "light country father let night picture being study second soon story since white ever paper hard "
    "near sentence better best across during today however sure knew try told young sun thing whole "
    "hear example heard several change answer room sea against top turned learn point city play toward "
    "five himself usually money seen car morning sky blue"
).split()
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)

tokens = [b"<unk>", b"<s>", b"</s>"]
kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
tokens += [f"<0x{byte:02X}>".encode() for byte in range(256)]
kinds += [gguf.TokenType.BYTE] * 256
tokens += ["\u2581".encode()] + [("\u2581" + word).encode() for word in WORDS]
kinds += [gguf.TokenType.NORMAL] * (len(WORDS) + 1)
first_word = len(tokens) - len(WORDS)

random = numpy.random.default_rng(7)


def weights(rows, columns, scale=0.5):
    return (random.standard_normal((rows, columns)) * scale).astype(numpy.float32)


writer = gguf.GGUFWriter(sys.argv[1], "llama")
writer.add_name("tiny")
writer.add_context_length(CONTEXT)
writer.add_embedding_length(WIDTH)
writer.add_block_count(LAYERS)
writer.add_feed_forward_length(INNER)
writer.add_head_count(HEADS)
writer.add_head_count_kv(HEADS)
writer.add_rope_dimension_count(WIDTH // HEADS)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_vocab_size(len(tokens))
writer.add_file_type(gguf.LlamaFileType.ALL_F32)
writer.add_tokenizer_model("llama")
writer.add_token_list(tokens)
writer.add_token_scores([-float(place) for place in range(len(tokens))])
writer.add_token_types(kinds)
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
writer.add_unk_token_id(0)
writer.add_chat_template(TEMPLATE)

writer.add_tensor("token_embd.weight", weights(len(tokens), WIDTH, 1.0))
writer.add_tensor("output_norm.weight", numpy.ones(WIDTH, dtype=numpy.float32))
# Only words are ever said: what is neither has no weight, and never the highest one.
output = weights(len(tokens), WIDTH)
output[:first_word] = 0
writer.add_tensor("output.weight", output)
for layer in range(LAYERS):
    block = f"blk.{layer}."
    writer.add_tensor(block + "attn_norm.weight", numpy.ones(WIDTH, dtype=numpy.float32))
    writer.add_tensor(block + "ffn_norm.weight", numpy.ones(WIDTH, dtype=numpy.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"{block}{name}.weight", weights(WIDTH, WIDTH))
    writer.add_tensor(block + "ffn_gate.weight", weights(INNER, WIDTH))
    writer.add_tensor(block + "ffn_up.weight", weights(INNER, WIDTH))
    writer.add_tensor(block + "ffn_down.weight", weights(WIDTH, INNER))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
