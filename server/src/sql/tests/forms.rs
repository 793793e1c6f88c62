//! Every form of ThanoSQL's statements, the tutorial's letter by letter.

use super::super::options::{
    BuildModelOptions, ColorOption, ConvertOptions, CopyFileOptions, CreateTableUsingOptions,
    IfExists, LossOption, OnError, OptionValue, Parameters, PathType, PredictOptions, PrintFormat,
    PrintOptions, SearchInput, SearchOptions, SimilarityOptions,
};
use super::super::{
    Algorithm, ComputeKind, DropVerb, ImageValue, JobIdValue, ListKind, PathValue, RowStatement,
    SearchForm, Statement,
};
use super::{body_shape, one, parse, row_shape, rows, shape, sql};

const TUTORIAL: &str = "SELECT * FROM mnist_dataset LIMIT 5;

BUILD MODEL mnist_model
USING SimCLR
OPTIONS (max_epochs=5)
AS select * from mnist_dataset;

CREATE TABLE mnist_embds
USING mnist_model 
OPTIONS(
        path_type='folder', 
        data_type='image',
        file_type=['.jpg']
        ) 
FROM '/data/development-model/data/mnist/MNIST_DATASET/train_data/';

SELECT * FROM mnist_embds limit 5;

SELECT img_path, filename, label, mnist_model_SimCLR FROM(
CONVERT USING mnist_model
OPTIONS(table_name= \"mnist_embds\")
AS SELECT * FROM mnist_embds);

SEARCH IMAGE images='/data/development-model/data/mnist/MNIST_DATASET/test/6011.jpg' 
USING mnist_model 
AS SELECT * FROM mnist_embds;

PRINT IMAGE AS
    (SELECT image as image, similarity_image1 FROM
        (SEARCH IMAGE images='/data/development-model/data/mnist/MNIST_DATASET/train_data/35322.jpg' 
        USING mnist_model 
        AS SELECT * FROM mnist_embds)
    ORDER BY similarity_image1 DESC LIMIT 4);
";

#[test]
fn the_tutorial_letter_by_letter() {
    let statements = parse(TUTORIAL);
    assert_eq!(statements.len(), 7);
    for (statement, written) in statements.iter().zip(TUTORIAL.split(";\n")) {
        assert_eq!(statement.text, written.trim(), "each keeps its own text");
        let before: String = TUTORIAL.chars().take(statement.offset).collect();
        assert!(TUTORIAL[before.len()..].starts_with(&statement.text));
    }

    let Statement::BuildModel(build) = &statements[1].statement else {
        panic!("{:?}", statements[1])
    };
    assert_eq!((build.name.value.as_str(), build.algorithm), ("mnist_model", Algorithm::SimClr));
    assert_eq!(body_shape(&build.body), "SELECT * FROM mnist_dataset");
    let options = BuildModelOptions::read(&build.options, Parameters::Unknown).unwrap();
    assert_eq!(options.max_epochs, Some(5));

    let Statement::CreateTableUsing(create) = &statements[2].statement else {
        panic!("{:?}", statements[2])
    };
    assert_eq!(
        (create.table.to_string().as_str(), create.model.value.as_str()),
        ("mnist_embds", "mnist_model")
    );
    assert_eq!(
        create.path.value,
        PathValue::Text("/data/development-model/data/mnist/MNIST_DATASET/train_data/".to_owned())
    );
    let options = CreateTableUsingOptions::read(&create.options, Parameters::Unknown).unwrap();
    assert_eq!(options.path_type, Some(PathType::Folder));
    assert_eq!(options.file_type, Some(vec![".jpg".to_owned()]));
    assert!(options.recursive && !options.overwrite && options.on_error == OnError::Fail);

    let Statement::Sql(select) = &statements[4].statement else { panic!("{:?}", statements[4]) };
    assert_eq!(
        shape(select),
        "SELECT img_path, filename, label, mnist_model_SimCLR FROM \
         (SELECT * FROM {convert mnist_model: SELECT * FROM mnist_embds})"
    );
    let RowStatement::Convert(convert) = &select.embedded[0].statement else {
        panic!("{select:?}")
    };
    let options = ConvertOptions::read(&convert.options, Parameters::Unknown).unwrap();
    assert_eq!(options.table_name.as_deref(), Some("mnist_embds"));
    assert_eq!(options.if_exists, None);

    let Statement::Rows(RowStatement::Search(search)) = &statements[5].statement else {
        panic!("{:?}", statements[5])
    };
    let SearchForm::EveryRow(images) = &search.form else { panic!("{search:?}") };
    let path = "/data/development-model/data/mnist/MNIST_DATASET/test/6011.jpg";
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].value, ImageValue::Path(path.to_owned()));
    assert!(TUTORIAL[images[0].position - 1..].starts_with(&format!("'{path}'")));

    let Statement::Rows(print) = &statements[6].statement else { panic!("{:?}", statements[6]) };
    assert_eq!(
        row_shape(print),
        "print: (SELECT image AS image, similarity_image1 FROM \
         (SELECT * FROM {search mnist_model: SELECT * FROM mnist_embds}) \
         ORDER BY similarity_image1 DESC LIMIT 4)"
    );
}

#[test]
fn build_model_takes_every_option_in_both_spellings() {
    let text = "build model \"M\" using SIMCLR options (
        image_col='p', fname=\"f\", target=t, max_epochs=3, batch_size=64, learning_rate=1e-3, loss=DCL, temperature=.5,
        weight_decay=0, warmup_epochs=0.5, seed=7, encoder=ResNet18, image_size=32, color=RGB,
        augmentations=['crop', rotate], pretrained=True, supervised=false, on_error='SKIP', overwrite='true',
        device='wgpu:0', async=on) as t";
    let Statement::BuildModel(build) = one(text) else { panic!("{text}") };
    assert_eq!(build.name.value, "M");
    assert_eq!(
        BuildModelOptions::read(&build.options, Parameters::Unknown).unwrap(),
        BuildModelOptions {
            image_col: Some("p".to_owned()),
            filename_col: Some("f".to_owned()),
            target_col: Some("t".to_owned()),
            max_epochs: Some(3),
            batch_size: Some(64),
            learning_rate: Some(1e-3),
            loss: LossOption::Dcl,
            temperature: Some(0.5),
            weight_decay: Some(0.0),
            warmup_epochs: Some(0.5),
            seed: Some(7),
            encoder: Some("resnet18".to_owned()),
            image_size: Some(32),
            color: Some(ColorOption::Rgb),
            augmentations: Some(vec!["crop".to_owned(), "rotate".to_owned()]),
            pretrained: true,
            supervised: false,
            on_error: OnError::Skip,
            overwrite: true,
            device: Some("wgpu:0".to_owned()),
            run_async: true,
        }
    );
    for name in ["filename_col", "fname"] {
        let Statement::BuildModel(build) =
            one(&format!("BUILD MODEL m USING simclr OPTIONS ({name}='x') AS t"))
        else {
            panic!("{name}")
        };
        let options = BuildModelOptions::read(&build.options, Parameters::Unknown).unwrap();
        assert_eq!(options.filename_col.as_deref(), Some("x"));
    }
    for name in ["target", "label_col", "target_col"] {
        let Statement::FitModel(fit) =
            one(&format!("FIT MODEL n USING m OPTIONS ({name}='x') AS t"))
        else {
            panic!("{name}")
        };
        assert_eq!((fit.name.value.as_str(), fit.base.value.as_str()), ("n", "m"));
        let options = BuildModelOptions::read(&fit.options, Parameters::Unknown).unwrap();
        assert_eq!(options.target_col.as_deref(), Some("x"));
    }
}

#[test]
fn options_may_be_empty_missing_or_none() {
    for text in [
        "CONVERT USING m AS t",
        "CONVERT USING m OPTIONS () AS t",
        "CONVERT USING m OPTIONS (batch_size=None, image_col=null) AS t",
    ] {
        let RowStatement::Convert(convert) = rows(text) else { panic!("{text}") };
        let options = ConvertOptions::read(&convert.options, Parameters::Unknown).unwrap();
        assert_eq!((options.batch_size, options.image_col), (None, None));
    }
}

#[test]
fn models_are_dropped_exported_and_shown() {
    let Statement::DropModel(drop) = one("DELETE MODEL M") else { panic!() };
    assert_eq!(
        (drop.name.value.as_str(), drop.if_exists, drop.verb),
        ("m", false, DropVerb::Delete)
    );
    let Statement::DropModel(drop) = one("drop model if exists \"M\"") else { panic!() };
    assert_eq!((drop.name.value.as_str(), drop.if_exists, drop.verb), ("M", true, DropVerb::Drop));
    let Statement::ExportModel(export) = one("EXPORT MODEL m TO 'm.safetensors'") else { panic!() };
    assert_eq!(export.path.value, PathValue::Text("m.safetensors".to_owned()));
    let Statement::ExportModel(export) = one("EXPORT MODEL m OPTIONS (overwrite=$1) TO $2") else {
        panic!()
    };
    assert_eq!((export.options.entries.len(), export.path.value), (1, PathValue::Parameter(2)));
    let Statement::UploadModel(upload) = one("UPLOAD MODEL m OPTIONS (overwrite=True) FROM $1")
    else {
        panic!()
    };
    assert_eq!((upload.path.value, upload.options.entries.len()), (PathValue::Parameter(1), 1));
    let Statement::ShowCreateModel(name) = one("SHOW CREATE MODEL m") else { panic!() };
    assert_eq!((name.value.as_str(), name.position), ("m", 19));
}

#[test]
fn files_become_tables() {
    let Statement::CopyFile(copy) = one("COPY S.T OPTIONS (if_exists='append') FROM 'x.csv'")
    else {
        panic!()
    };
    assert_eq!(copy.table.to_string(), "s.t");
    let options = CopyFileOptions::read(&copy.options, Parameters::Unknown).unwrap();
    assert_eq!(options.if_exists, IfExists::Append);
    let Statement::CopyFile(copy) = one("COPY t FROM '[{\"a\": 1}]'") else { panic!() };
    assert_eq!(copy.source.value, PathValue::Text("[{\"a\": 1}]".to_owned()));
    let Statement::CopyFile(copy) = one("COPY t FROM $2") else { panic!() };
    assert_eq!(copy.source.value, PathValue::Parameter(2));
    let Statement::GetDataset(get) =
        one("GET THANOSQL DATASET digits_data OPTIONS (overwrite=False)")
    else {
        panic!()
    };
    assert_eq!(get.name.value, "digits_data");
    let Statement::GetModel(get) =
        one("GET THANOSQL MODEL resnet OPTIONS (model_name=r, overwrite=True)")
    else {
        panic!()
    };
    assert_eq!((get.name.value.as_str(), get.options.entries.len()), ("resnet", 2));
    let Statement::CreateTableUsing(create) = one("CREATE TABLE IF NOT EXISTS a.b USING m FROM $1")
    else {
        panic!()
    };
    assert!(create.if_not_exists);
    assert_eq!(
        (create.table.to_string().as_str(), create.path.value),
        ("a.b", PathValue::Parameter(1))
    );
}

#[test]
fn search_has_two_forms() {
    let RowStatement::Search(search) =
        rows("SEARCH IMAGE images=['a', $1, 'c'] USING m OPTIONS (top_k=3) AS t")
    else {
        panic!()
    };
    let SearchForm::EveryRow(images) = &search.form else { panic!("{search:?}") };
    let values: Vec<_> = images.iter().map(|image| image.value.clone()).collect();
    let path = |path: &str| ImageValue::Path(path.to_owned());
    assert_eq!(values, [path("a"), ImageValue::Parameter(1), path("c")]);
    let options = SearchOptions::read_every_row(&search.options, Parameters::Unknown).unwrap();
    assert_eq!((options.top_k, options.result_col), (Some(3), None));

    let text = "SEARCH IMAGE USING m OPTIONS (search_by='image', search_input=$1, emb_col=e, min_score=-0.5) AS t";
    let RowStatement::Search(search) = rows(text) else { panic!() };
    assert_eq!(search.form, SearchForm::Best);
    let options = SearchOptions::read_best(&search.options, Parameters::Unknown).unwrap();
    assert_eq!(
        (options.search_input, options.top_k, options.min_score),
        (None, Some(1000), Some(-0.5))
    );
    assert_eq!(options.result_col.as_deref(), Some("search_result"));
    let image = [OptionValue::Bytes(vec![1, 2])];
    let options = SearchOptions::read_best(&search.options, Parameters::Known(&image)).unwrap();
    assert_eq!(options.search_input, Some(SearchInput::Bytes(vec![1, 2])));

    let RowStatement::Search(search) =
        rows("SEARCH IMAGE USING m OPTIONS (search_input='a', top_k=None) AS t")
    else {
        panic!()
    };
    let options = SearchOptions::read_best(&search.options, Parameters::Unknown).unwrap();
    assert_eq!(
        (options.top_k, options.search_input),
        (None, Some(SearchInput::Path("a".to_owned())))
    );
}

#[test]
fn print_predict_evaluate_and_functions() {
    let RowStatement::Print(print) =
        rows("PRINT IMAGE OPTIONS (limit=3, format=text, base_dir='d') AS t")
    else {
        panic!()
    };
    let options = PrintOptions::read(&print.options, Parameters::Unknown).unwrap();
    assert_eq!(
        (options.limit, options.format, options.base_dir.as_deref()),
        (Some(3), PrintFormat::Text, Some("d"))
    );
    let RowStatement::Print(print) = rows("PRINT IMAGE AS t") else { panic!() };
    let options = PrintOptions::read(&print.options, Parameters::Unknown).unwrap();
    assert_eq!((options.limit, options.format), (Some(25), PrintFormat::Auto));
    let RowStatement::Predict(predict) = rows("PREDICT USING m OPTIONS (k=3) AS (SELECT * FROM t)")
    else {
        panic!()
    };
    let options = PredictOptions::read(&predict.options, Parameters::Unknown).unwrap();
    assert_eq!((options.k, options.result_col.as_str()), (Some(3), "predict_result"));
    assert!(matches!(
        rows("EVALUATE USING m OPTIONS (label_col=l) AS t"),
        RowStatement::Evaluate(_)
    ));
    let RowStatement::Function(function) =
        rows("FUNCTION compute.similarity OPTIONS (emb_col=e, src_table='s', top_k=2) AS t")
    else {
        panic!()
    };
    assert_eq!(function.kind, ComputeKind::Similarity);
    let options = SimilarityOptions::read(&function.options, Parameters::Unknown).unwrap();
    assert_eq!(
        (options.top_k, options.src_table.as_str(), options.result_col.as_str()),
        (2, "s", "similarity_result")
    );
    let RowStatement::Function(function) =
        rows("FUNCTION compute.groupby_emb_mean OPTIONS (label_col=l) AS t")
    else {
        panic!()
    };
    assert_eq!(function.kind, ComputeKind::GroupbyEmbMean);
}

#[test]
fn lists_and_jobs() {
    let kinds = [
        ("LIST MODEL", ListKind::Models),
        ("list tables", ListKind::Tables),
        ("LIST JOB", ListKind::Jobs),
        ("LIST THANOSQL DATASET", ListKind::Datasets),
        ("LIST THANOSQL MODEL", ListKind::PublishedModels),
    ];
    for (text, kind) in kinds {
        assert_eq!(rows(text), RowStatement::List(kind));
    }
    assert_eq!(rows("show jobs;"), RowStatement::ShowJobs);
    let Statement::CancelJob(job) = one("CANCEL JOB 12") else { panic!() };
    assert_eq!((job.value, job.position), (JobIdValue::Number(12), 12));
    let Statement::WaitJob(job) = one("WAIT JOB $1") else { panic!() };
    assert_eq!(job.value, JobIdValue::Parameter(1));
}

#[test]
fn bodies_in_every_form() {
    let bodies = [
        ("t", "SELECT * FROM t"),
        ("(t)", "(SELECT * FROM t)"),
        ("s.\"T\"", "SELECT * FROM s.\"T\""),
        ("TABLE t", "SELECT * FROM t"),
        ("SELECT a FROM t WHERE b", "SELECT a FROM t WHERE b"),
        ("(SELECT a FROM t)", "(SELECT a FROM t)"),
        ("WITH x AS (SELECT 1) SELECT * FROM x", "WITH x AS (SELECT 1) SELECT * FROM x"),
        ("VALUES ('a'), ('b')", "VALUES ('a'), ('b')"),
        ("SEARCH IMAGE images='a' USING m AS t", "SELECT * FROM {search m: SELECT * FROM t}"),
        ("(CONVERT USING m AS t)", "(SELECT * FROM {convert m: SELECT * FROM t})"),
    ];
    for (written, meant) in bodies {
        let RowStatement::Print(print) = rows(&format!("PRINT IMAGE AS {written}")) else {
            panic!("{written}")
        };
        assert_eq!(body_shape(&print.body), meant);
        assert_eq!(print.body.position, 16);
        let embedded = sql(&format!("SELECT * FROM (PRINT IMAGE AS {written}) p"));
        assert_eq!(shape(&embedded), format!("SELECT * FROM (SELECT * FROM {{print: {meant}}}) p"));
    }
}

#[test]
fn parameters_are_counted_wherever_they_stand() {
    let text = "SELECT $1; SELECT * FROM (SEARCH IMAGE images=$2 USING m OPTIONS (top_k=$4) AS SELECT * FROM t WHERE a = $3); SELECT 1";
    let counts: Vec<_> = parse(text).iter().map(|statement| statement.parameter_count).collect();
    assert_eq!(counts, [1, 4, 0]);
}

#[test]
fn a_cast_where_a_parameter_first_stands_says_what_it_is() {
    let text = "SELECT $2::double precision, cast($1 AS int[]), $3, $3::int, $2::text, $4::timestamp(3) with time zone[], ($5)::int, f($6 AS int), $7::";
    let casts = |text: &str| {
        let parsed = parse(text);
        let written = |(n, data_type): &(usize, _)| format!("{n} {data_type}");
        parsed[0].cast_parameters.iter().map(written).collect::<Vec<_>>()
    };
    let whole = text.strip_suffix(", f($6 AS int), $7::").unwrap();
    assert_eq!(casts(whole), ["2 DOUBLE PRECISION", "1 INT[]", "4 TIMESTAMP(3) WITH TIME ZONE[]"]);
    assert!(crate::sql::parse_script(text).is_err());
    assert_eq!(
        casts("SELECT * FROM (LIST MODEL) WHERE name = $1::pg_catalog.oid"),
        ["1 pg_catalog.oid"]
    );
}

#[test]
fn literals_take_the_places_of_parameters() {
    let text = "BUILD MODEL m USING SimCLR OPTIONS (image_col=$2, augmentations=[$1, 'b']) AS SELECT '$1', \"$2\" FROM t WHERE a = $1 -- $1\n AND 한글 > $12";
    let written = crate::sql::with_literals(text, |number, in_options| {
        (number < 12).then(|| format!("<{number}{}>", if in_options { "o" } else { "" }))
    });
    assert_eq!(
        written.unwrap(),
        "BUILD MODEL m USING SimCLR OPTIONS (image_col=<2o>, augmentations=[<1o>, 'b']) AS SELECT '$1', \"$2\" FROM t WHERE a = <1> -- $1\n AND 한글 > $12"
    );
}
