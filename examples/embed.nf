// Embed a FASTA file in parts, join and verify them: nextflow run examples/embed.nf --fasta examples/proteins.fasta
// protembed must be on the PATH, or in a container or conda environment that nextflow.config names.

params.fasta = 'examples/proteins.fasta'
params.model = 'protembed_t6_8M' // a bundled model, one on the hub, or the absolute path of a directory
params.parts = 2
params.outdir = 'embedded'

process EMBED {
    cpus 2
    errorStrategy 'retry'

    input:
    val part
    path fasta

    output:
    path "part${part}.*"

    script:
    """
    protembed embed ${fasta} -m ${params.model} --shard ${part}/${params.parts} --threads ${task.cpus} \
        -o part${part}.npy
    """
}

process JOIN {
    publishDir params.outdir, mode: 'copy'

    input:
    path parts

    output:
    path 'all.*'

    script:
    """
    protembed join part*.npy -o all.npy
    """
}

process CHECK {
    input:
    path result
    path fasta

    output:
    stdout

    script:
    """
    protembed check all.npy ${fasta} -m ${params.model} 2>&1
    """
}

workflow {
    fasta = file(params.fasta, checkIfExists: true)
    parts = EMBED(channel.of(1..params.parts), fasta)
    result = JOIN(parts.collect())
    CHECK(result, fasta).view()
}
