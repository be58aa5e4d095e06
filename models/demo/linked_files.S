// The files of models/demo/files as read-only data; demo_folder.cpp declares the names.
        .section .rodata, "a", @progbits

        .macro linked name, file
        .balign 64
        .global troupe_demo_\name\()_begin
        .global troupe_demo_\name\()_end
        .hidden troupe_demo_\name\()_begin
        .hidden troupe_demo_\name\()_end
troupe_demo_\name\()_begin:
        .incbin "\file"
troupe_demo_\name\()_end:
        .endm

        linked config, "config.json"
        linked generation_config, "generation_config.json"
        linked weights, "model.safetensors"
        linked tokenizer, "tokenizer.json"
        linked tokenizer_config, "tokenizer_config.json"

        .section .note.GNU-stack, "", @progbits
